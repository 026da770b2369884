"""What a run is asked to do: typed settings, `--set`, presets and rules."""
