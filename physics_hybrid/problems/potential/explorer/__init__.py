"""The explorer: a local page on which an electrode is placed by hand.

    python -m physics_hybrid explore thigh.nii.gz

    scene           what the page asks, checked
    specimen        a body whose tissues have sliders
    sections        three planes through a field, as they are drawn
    answers         a scene -> sections, numbers, bound, files; knows no HTTP
    server          the page on the loopback address, and nobody else
    page/           HTML, CSS and JavaScript (current_lines.js: lines along J)

Served by Werkzeug, which TensorBoard brings anyway, and drawn by the page itself: a plotting
library for the browser would be megabytes for three pictures that it cannot drag an electrode in.
"""
