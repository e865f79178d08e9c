"""How the judges are made; nothing here is opened by a node or a workflow.

stickers that are none of the world's  distractors.distractors
where these come from                  make_distractors.main
things that are none                   mixtures.MIXTURES
pictures with exact labels             pictures.draw
a segmenter of another architecture    segmenter.train_segmenter
a CLIP of another size                 clip.train_judge
the command                            train.main
"""
