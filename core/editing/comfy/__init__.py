"""Edits in a run of ComfyUI's samplers.

editing a picture     edit.edit_picture
on prompts' entries   entry.EditEntry
in a run              run.run_edits
"""
