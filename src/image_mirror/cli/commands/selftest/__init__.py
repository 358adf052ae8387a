"""`image-mirror selftest`: checks after a first deployment what only real AWS can show, and removes what it made."""

from image_mirror.cli.commands.selftest.command import selftest

__all__ = ("selftest",)
