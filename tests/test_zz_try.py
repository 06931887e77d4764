import time
def test_a(vinbig_store, train_tiny, tmp_path):
    for n in (1,1):
        t=time.time(); run=train_tiny(vinbig_store, tmp_path/f"r{time.time()}"); print("took", time.time()-t)
    import os
    for p in sorted(run.rglob("*")): print(p.relative_to(run), p.stat().st_size)
    print((run/"metrics.csv").read_text()); print((run/"model.json").read_text()); print((run/"config.yaml").read_text())
