"""The embedded checkpoint: autoencoder, text encoder, denoiser.

train the autoencoder      autoencoder.train_autoencoder
train its decoder further  autoencoder.train_decoder
latents of all scenes      latents.encode_scenes
train the denoiser         diffusion.train_diffusion
the transformer beside it  transformer.StickerTransformer
train the transformer      transformer_training.train_transformer
its teacher, the U-Net     velocity_teacher.VelocityTeacher
what it has learnt         transformer_probe.main
write the shipped files    export.export_checkpoint
read it back               shipped_weights.load_diffusion
what the parts can do      probe.word_map_hits
"""
