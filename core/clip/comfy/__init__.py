"""CLIP as ComfyUI holds it.

a phrase's tokens in a prompt    words.positions_of_phrases
its columns along the embedding  columns.prompt_columns
a folder as CLIP_VISION          vision.load_clip_vision
both its towers in the graph     folder.FolderClip
"""
