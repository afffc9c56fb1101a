"""What a network may be for, by the kind of its data set."""

# the tasks that a data set of each kind can serve; the first is what a network of the user's own is for that
# does not say so in `task`
TASKS = {
    "image_classification": ("classification", "reconstruction", "own"),
    "tabular_classification": ("classification", "own", "pipelines"),
    "point_cloud_classification": ("classification", "own"),
    "regression": ("regression", "pipelines"),
    "image_reconstruction": ("reconstruction",),
    "stream": ("classification",),
    "analytic": ("analytic",),
    "online": ("online",),
    "segmentation": ("segmentation",),
    "detection": ("detection", "own"),
    "sequence_tagging": ("tagging", "own"),
    "multi_task": ("multi_task",),
    "multi_label": ("multi_task",),
    "face_verification": ("own",),
    "convex_problem": ("convex",),
    "language_modelling": ("own",),
    "translation": ("translation",),
    "question_answering": ("own",),
    "saddle_problem": ("constraint",),
    "objective": ("surrogate",),
    "network_function": ("regression", "classification"),
    "design_tasks": ("design",),
    "no_data": ("surrogate", "certificate"),
}
