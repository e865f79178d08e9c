"""Training of Text2Layer (arXiv 2307.09781), on Sticker World and on a user's own layers.

4.1, the autoencoder       autoencoder.train_layered_autoencoder
4.2, the U-Net             diffusion.train_layered_diffusion
scenes split into layers   samples.open_layers
latents of layers          latents.encode_layers
write the shipped file     export.export_text2layer
train on own layers        own_layers.train_own_layers
a user's folder of layers  layer_folder.open_layer_folder
LPIPS                      perceptual.load_lpips
"""
