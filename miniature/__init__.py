"""A small world of drawn people, in which likeness can be measured without any downloaded weights."""
