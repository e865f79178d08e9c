"""Nodes of edits.

Edit Picture          edit_picture.StageEditPicture
Insert Objects        edits.StageEditInsert
Replace Object        edits.StageEditReplace
Remove Object         edits.StageEditRemove
Move Object           edits.StageEditMove
"""
