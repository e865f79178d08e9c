"""Training of Compose and Conquer's fusers (arXiv 2401.09048), on Sticker World and on a user's own pictures.

depth disentanglement training  train.train_fusers
triplets of exact scenes        triplets.open_triplets
the frozen U-Net around them    frozen_denoiser.FrozenDenoiser
write the shipped file          train.export_fusers
train on own pictures           own_pictures.train_own_pictures
triplets of own pictures        picture_folder.open_pictures
what frozen models see in them  picture_encoding.encode_pictures
"""
