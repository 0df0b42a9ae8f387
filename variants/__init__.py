"""Variants of SMG beyond its paper, one file each; docs/variants.md tells what each is for."""
