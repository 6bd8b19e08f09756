"""An ID-Enhancer pretrained across people: data set, training, file, and people made with it."""
