"""A rendered shop: products that do not exist (`design`), their packshots (`packshot`),
photographs of them on the shelf (`photo`), and whole data sets made of those (`sets`).
"""
