"""Write the tables and plots from the stored results, without measuring.

python benchmarks/report.py
"""

import pages
import results

if __name__ == "__main__":
    for path in pages.RESULTS.values():
        if path.exists():
            pages.show(results.read(path))
