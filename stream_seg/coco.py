"""COCO's classes: their names, and the numbers its annotations give them."""

from __future__ import annotations

_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_NAMES = tuple(_NAMES.split(","))
"""The 80 classes of COCO, in the order of their ids."""

_NEVER_USED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = tuple(number for number in range(1, 91) if number not in _NEVER_USED)
"""The ids, 1 to 90, that COCO's annotations give those classes; ten ids are not in use."""

EVERYDAY = {
    "people": "person",
    "human": "person",
    "pedestrian": "person",
    "man": "person",
    "men": "person",
    "woman": "person",
    "women": "person",
    "child": "person",
    "children": "person",
    "bike": "bicycle",
    "cycle": "bicycle",
    "motorbike": "motorcycle",
    "automobile": "car",
    "lorry": "truck",
    "plane": "airplane",
    "aeroplane": "airplane",
    "aircraft": "airplane",
    "ship": "boat",
    "hydrant": "fire hydrant",
    "kitten": "cat",
    "puppy": "dog",
    "cattle": "cow",
    "bag": "handbag",
    "rucksack": "backpack",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "table": "dining table",
    "desk": "dining table",
    "television": "tv",
    "tvmonitor": "tv",
    "monitor": "tv",
    "screen": "tv",
    "notebook": "laptop",
    "phone": "cell phone",
    "smartphone": "cell phone",
    "mobile": "cell phone",
    "mobile phone": "cell phone",
    "fridge": "refrigerator",
    "doughnut": "donut",
    "hairdryer": "hair drier",
    "hair dryer": "hair drier",
}
"""What people, and older sets of pictures (VOC), call some of those classes."""
