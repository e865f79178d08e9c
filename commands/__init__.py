"""What stage.py runs: the set-up of an environment, ComfyUI's server and API, the demo, the tests, fuzzing.

The set-up (messages, cache, pins, pip_install, comfyui_source, environment) uses the standard library only, because it
runs before anything is installed. The rest runs inside the environment that the set-up makes.
"""
