"""CLIP: the embedded one, folders of others, and where a phrase's words are among a prompt's tokens.

texts and pictures on one sphere (arXiv 2103.00020)    clip_guide.load_clip
the embedded CLIP                                      small_clip.SmallCLIP
its words                                              vocabulary.Vocabulary
what it does not read of a long text                   unread.unread_end
a phrase's tokens in a prompt                          phrases.find_phrases
what a vocabulary's pieces say                         pieces.Spelling
both for ComfyUI's text encoders                       comfy.words.positions_of_phrases
and where they are along an embedding                  comfy.columns.prompt_columns
a folder as ComfyUI's CLIP_VISION                      comfy.vision.FolderClipVision
both towers, read when a node needs them               comfy.folder.FolderClip
"""
