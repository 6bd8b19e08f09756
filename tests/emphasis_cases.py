"""Prompts, and their texts and weights as ComfyUI reads them."""

CASES = {
    "a dog": [("a dog", 1.0)],
    "": [],
    "a (dog:1.5) here": [("a ", 1.0), ("dog", 1.5), (" here", 1.0)],
    "(dog)": [("dog", 1.1)],
    "((dog))": [("dog", 1.1 * 1.1)],
    "(a (dog:0.5) b)": [("a ", 1.1), ("dog", 0.5), (" b", 1.1)],
    "(a (dog) b:2)": [("a ", 2.0), ("dog", 1.1 * 2.0), (" b", 2.0)],
    r"a \(dog\)": [("a (dog)", 1.0)],
    r"(a \(dog:2\):1.2)": [("a (dog:2)", 1.2)],
    "(dog:big)": [("dog:big", 1.1)],
    "(:1.5)": [(":1.5", 1.1)],
    "()": [],
    "(dog": [("(dog", 1.0)],
    "dog)": [("dog)", 1.0)],
    "a) (dog:2)": [("a) (dog:2)", 1.0)],
    "(a:b:1.5)": [("a:b", 1.5)],
    "(dog:-1)": [("dog", -1.0)],
    "(dog: 1.5 )": [("dog", 1.5)],
}
