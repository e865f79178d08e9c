"""Layered rendering as ComfyUI's regional conditioning.

Alg. 1                render.render_in_layers
its settings          settings.Rendering
layers of a layout    make_layers.make_layers
LoRAs that they wear  loras.Wardrobe
whose vector is what  sources.Deltas
constant deltas       deltas.colour_latent
on prompts' entries   entry.LayerEntry
around a run          follow.paint_layers
in a run              run.LayeredRun
a layer in a run      layer_on_grid.RunLayer
parts of a crop       cropping.areas_of_layers
size of a state       state.scale_of_state
trajectories          trajectories.sample_apart
"""
