//! Bounds in entries and bytes, and what stays within them.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn bounded(capacity: usize, max_bytes: usize) -> Cache {
    cache_with(|settings| {
        let share = CacheShare {
            capacity,
            max_bytes,
            ..settings.success
        };
        (settings.success, settings.denial) = (share, share);
    })
}

#[tokio::test(start_paused = true)]
async fn dns_cache_size_is_bounded_in_entries_and_bytes() {
    for (case, capacity, max_bytes, most) in [
        ("entries", 100, 1 << 20, 100),
        ("bytes", 100_000, 64 << 10, 200),
    ] {
        let mut cache = bounded(capacity, max_bytes);
        for n in 0..1000 {
            let name = format!("n{n}.example");
            put(&mut cache, &name, positive(&name, &[600, 600, 600]));
            let name = format!("x{n}.example");
            put(
                &mut cache,
                &name,
                negative(ResponseCode::NXDomain, 600, 600),
            );
            for store in [&cache.positive, &cache.negative] {
                assert!(store.len() <= most, "{case}: {} entries", store.len());
                assert!(
                    store.entries.weight() <= max_bytes as u64,
                    "{case}: {} bytes",
                    store.entries.weight()
                );
            }
        }
        assert!(
            cache.positive.len() > 50,
            "{case}: {}",
            cache.positive.len()
        );
    }
    let mut small = bounded(100, 4096);
    put(
        &mut small,
        "huge.example",
        positive("huge.example", &[600; 1000]),
    );
    assert_eq!(
        rcode(&small, "huge.example"),
        None,
        "larger than all there is"
    );
}

/// Half of the queries are for a hot set, of which some names are hotter than others, the others for
/// names that do not exist, each asked for once.
#[tokio::test(start_paused = true)]
async fn reliability_l8_a_flood_of_unique_names_leaves_the_hot_set() {
    let mut random = StdRng::seed_from_u64(8);
    let mut cache = bounded(2000, 4 << 20);
    let hot: Vec<String> = (0..1000).map(|n| format!("hot{n}.example")).collect();
    let (mut hits, mut asked) = (0u32, 0u32);
    for round in 0..200_000u32 {
        let square = random.random::<f64>().powi(2);
        let n = (square * hot.len() as f64) as usize;
        // Of every second hot name there is nothing of this type, as with AAAA of most names.
        let answer = match n % 2 {
            0 => positive(&hot[n], &[3600]),
            _ => negative(ResponseCode::NoError, 3600, 3600),
        };
        let hit = get(&cache, &hot[n]).is_some();
        if round > 20_000 {
            asked += 1;
            hits += u32::from(hit);
        }
        if !hit {
            put(&mut cache, &hot[n], answer);
        }
        let unique = format!("{:x}-{round}.example", random.random::<u64>());
        assert!(get(&cache, &unique).is_none());
        put(
            &mut cache,
            &unique,
            negative(ResponseCode::NXDomain, 3600, 3600),
        );
    }
    let ratio = f64::from(hits) / f64::from(asked);
    assert!(ratio >= 0.99, "hit ratio of the hot set: {ratio}");
}
