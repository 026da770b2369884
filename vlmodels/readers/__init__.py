"""Readers of video files, one module each, behind the door ``vlmodels.video``."""
