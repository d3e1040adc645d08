"""What measures any problem: steps, memory, scaling, studies; and the pages that show it."""
