"""Files and folders, on this machine or in an object store."""
