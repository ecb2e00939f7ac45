"""What the loops around a compiled program read their addresses and sizes from: int64 numbers, at these bytes."""

# A program: its block's address, its memory, streams that it takes at once, tables, frames of a step, inputs and outputs together, and
# from SIZES on the bytes that a step takes of each of those
BLOCK, MEMORY, WIDTH, TABLES, STEPS, TENSORS, SIZES = range(0, 56, 8)
FIRST_TENSOR = 3  # the table of the first input: rows, parameters and scratch are before it
# A handle to one stream: the arena's address, generations, the program, whether a batch is being stepped without the GIL, the
# stream's slot and its generation, the arena's stride, elements of a frame
ARENA, GENERATIONS, PROGRAM, BUSY, SLOT, GENERATION, STRIDE, ELEMENTS = range(0, 64, 8)
