"""The embedded checkpoint: autoencoder, text encoder, denoiser.

train the autoencoder      autoencoder.train_autoencoder
train its decoder further  autoencoder.train_decoder
latents of all scenes      latents.encode_scenes
train the denoiser         diffusion.train_diffusion
write the shipped file     export.export_checkpoint
read it back               shipped_weights.load_diffusion
what the parts can do      probe.word_map_hits
"""
