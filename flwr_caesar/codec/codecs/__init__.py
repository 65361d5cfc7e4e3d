"""The codecs, each in the file of its id."""
