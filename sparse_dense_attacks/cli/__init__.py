"""The shipped commands, one file each."""
