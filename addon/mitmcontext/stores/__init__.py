"""Mappings of bytes to bytes with a bound in bytes. The code that uses one knows no more."""
