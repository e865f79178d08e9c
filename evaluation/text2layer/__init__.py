"""Text2Layer measured."""
