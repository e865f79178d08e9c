"""The embedded checkpoint: autoencoder, text encoder, denoiser."""
