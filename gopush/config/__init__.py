"""Ini files to typed settings: how options are declared, how their values are written, how files are read anew."""
