"""How many tokens a request has, before anyone is asked.

`vocabulary` turns text into a number, `families` says what each model adds to that number,
`estimate` puts the two together and `calibration` corrects the result by what providers report.
"""
