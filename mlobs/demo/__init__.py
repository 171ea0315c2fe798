"""The main job, as a user would build it: a model on real flights, served, watched, broken twice, paged.

`flights` -> `training` -> (`serving` <- `plan` of causes) <- `replay`; `stage_set` lays out the folder and
starts the processes, `run` is the job, `summary` the verdict.
"""
