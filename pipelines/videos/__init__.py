"""Which videos there are: folders, lists, labels and captions."""
