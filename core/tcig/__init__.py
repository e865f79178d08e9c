"""TCIG (arXiv 2403.01212): VQGAN+CLIP steered by segmentation models, then a diffusion model.

Stage one: L_t = alpha_c L_clip + sum alpha_s,i L_seg,i  draft.draft
L_clip, of all prompts                                   prompts.prompt_loss
L_seg = MSE(m_p, m_t)                                    segmentation_loss.SegmentationTerm
Adam, and gradients in balance                           optimisation.Optimisation
Where a draft begins                                     starts.start_of
What CLIP sees                                           cut_outs.CutOuts
Stage two: how much is noised                            refinement.plan_refinement
A VQGAN, and its gradients                               vqgan.VQGAN
VQGAN folders and files                                  vqgan_files.load_vqgan
taming-transformers' weights                             taming.from_taming
Stage one in ComfyUI                                     comfy.draft.draft_pictures
Stage two in ComfyUI                                     comfy.refine.refine
"""
