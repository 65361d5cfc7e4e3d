"""Print what comes of every app under every strategy: `python -m tests.apps.survey`."""
import sys, time, logging

import numpy as np
from .catalogue import APPS
from .run import run, plainly, oversized
from .strategies import OURS, PLAIN, applies
from collections import Counter
logging.getLogger("flwr").setLevel(logging.CRITICAL)
pick = sys.argv[1:]
for app in APPS:
    if pick and not any(p in app.title for p in pick): continue
    print("##", app.title, flush=True)
    for name in ([] if '*' in app.refused and 'Uncompressed' not in app.refused else [PLAIN]) + list(OURS):
        if name != PLAIN and not applies(app, name): continue
        seeds = range(app.seeds)
        t = time.time()
        try:
            outs = [run(app, name, s) if name != PLAIN else plainly(app, s) for s in seeds]
        except Exception as e:
            import re; print(f"   {name:17} " + ("refused ok, messages " + str(0) if app.refusal(name) and re.search(app.refusal(name), str(e)) else "FAIL") + f" RAISED {type(e).__name__}: {str(e)[:300]}", flush=True); continue
        sc = np.mean([o.scores for o in outs], axis=0) if len({len(o.scores) for o in outs}) == 1 else []
        drops = Counter(d[:110] for o in outs for d in o.dropped)
        errs = Counter(d[:110] for o in outs for d in o.grid.errors)
        line = f"   {name:17} {np.round([sc[0], *sc[-1:]],3) if len(sc) else '[]'} obs {outs[0].observed}"
        if name != PLAIN and app.refusal(name): line += '  FAIL NOT REFUSED ' + str(dict(drops))
        elif name != PLAIN:
            plain = [plainly(app, s) for s in seeds]
            d = np.mean([o.scores[-1] - p.scores[-1] for o, p in zip(outs, plain)])
            d0 = np.mean([o.scores[0] - p.scores[0] for o, p in zip(outs, plain)])
            ratio = sum(o.nbytes() for o in outs) / sum(p.nbytes() for p in plain)
            over = oversized(outs[0], plain[0])
            bad = []
            if not d >= -app.allowed(name): bad.append(f"ACCURACY {d:+.3f}")
            if not d0 >= -app.allowed(name): bad.append(f"START {d0:+.3f}")
            if not np.isfinite(sc).all(): bad.append("NAN")
            if over: bad.append(f"OVERSIZED by {over}")
            if name != "FedComLoc" and sum(o.nbytes() for o in outs) > sum(p.nbytes() + 200 * p.grid.messages() for p in plain): bad.append("BYTES")
            if outs[0].observed != plain[0].observed: bad.append(f"OBSERVED, plain {plain[0].observed}")
            if drops: bad.append(f"DROPPED {dict(drops)}")
            if errs != Counter(d[:110] for p in plain for d in p.grid.errors): bad.append(f"ERRORS {dict(errs)}")
            line += f" diff {d:+.3f} bytes {ratio:.3f}  " + ("ok" if not bad else "FAIL " + "; ".join(bad))
        print(line, f"({time.time()-t:.1f} s)", flush=True)
