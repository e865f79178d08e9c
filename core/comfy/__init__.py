"""What every method needs of ComfyUI.

ComfyUI's things by name            types.ModelSampling
A run of a sampler                  runs.Run
A method around every run           runs.around_runs
A sampler's settings                sampling.Sampling
A state's shares of data and noise  sampling.signal_and_noise
Drop-downs of files and folders     named_files.NamedFiles
Models that are folders             model_folders.config_folders
Whether files were replaced         model_folders.fingerprint
Captions of a batch                 captions.embed_captions
those that may share an evaluation  captions.rows_of_one_length
and what the others say then        captions.captions_of_rows
Pictures in the input folder        pictures.load_references
pictures as latents                 pictures.encode_pictures
Progress, and text on a node        progress.progress
Other networks on ComfyUI's device  device.on_device
Our files on ComfyUI's page          web_files.serve_files
Pasted texts, for the canvas        layout_reader.serve_reader
The embedded checkpoints            sticker_world.register_model_class
ComfyUI without its server          library.use_comfyui
"""
