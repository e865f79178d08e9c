"""Nodes that edit a given picture.

Put something in                  edits.StageEditInsert
Put something in another's place  edits.StageEditReplace
Take something away               edits.StageEditRemove
Move something                    edits.StageEditMove
Do these edits in a run           edit_picture.StageEditPicture
"""
