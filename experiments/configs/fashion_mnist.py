"""Product photographs: six classes to train on, four unseen ones to search.

python -m experiments.train --data fashion_mnist
Two CPU cores, 5 minutes, most of them to search 28,000 images: MAP@R 0.00 on the four unseen
classes, raw pixels 0.00. Six classes teach little about others, and what pulls a class into one
point (arcface: 0.42) forgets what tells unseen ones apart. Easy positives leave its modes apart.
"""

from jdml import distances, miners

data = "fashion_mnist"
loss = "triplet"
loss_options = {
    "margin": 0.2,
    "distance": distances.normalized(distances.euclidean),
    "miner": miners.BatchEasyHard(positives="easy", negatives="hard"),
}
steps = 400
classes_per_batch, per_class = 6, 21
pooling = "average"
