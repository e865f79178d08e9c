"""Compose and Conquer in ComfyUI.

Two depths and two looks           compose.compose_depth
Depths beside ControlNets          control.DepthControl
Looks of reference pictures        exemplars.make_exemplars
Drop-down of files                 files.CNC_FILES
A frozen checkpoint, for training  frozen.FrozenCheckpoint
"""
