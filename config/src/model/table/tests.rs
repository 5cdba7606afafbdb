use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, u32),
    Remove(u16),
    /// What holds now is kept, and has to hold at the end.
    Keep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..600_u16;
    let step = prop_oneof![
        8 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
        4 => key.prop_map(Step::Remove),
        1 => Just(Step::Keep),
    ];
    proptest::collection::vec(step, 0..1500)
}

fn name(key: u16) -> Arc<str> {
    format!("host-{key}.test").into()
}

/// `table` has what `model` has, and nothing else.
fn same(table: &Table<Arc<str>, u32>, model: &HashMap<u16, u32>) {
    assert_eq!(
        (table.size(), table.is_empty()),
        (model.len(), model.is_empty())
    );
    for key in 0..600 {
        assert_eq!(table.get(&*name(key)), model.get(&key), "{key}");
    }
    let entries: HashMap<Arc<str>, u32> = table.iter().map(|(k, v)| (Arc::clone(k), *v)).collect();
    let expected = model.iter().map(|(key, value)| (name(*key), *value));
    assert_eq!(entries, expected.collect());
    assert_eq!(table.keys().count(), model.len());
    assert_eq!(table.values().count(), model.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn config_pf14_a_table_is_a_map_and_its_clones_stay_as_they_were(steps in steps()) {
        let (mut table, mut model) = (Table::default(), HashMap::new());
        let mut kept = Vec::new();
        for step in steps {
            match step {
                Step::Insert(key, value) => {
                    table.insert_mut(name(key), value);
                    model.insert(key, value);
                }
                Step::Remove(key) => {
                    let was_there = table.remove_mut(&*name(key));
                    assert_eq!(was_there, model.remove(&key).is_some());
                }
                Step::Keep => kept.push((table.clone(), model.clone())),
            }
        }
        same(&table, &model);
        for (table, model) in &kept {
            same(table, model);
        }
    }
}

#[test]
fn config_pf14_a_change_copies_few_of_many_entries() {
    let mut table: Table<Arc<str>, Arc<()>> = Table::default();
    for key in 0..20_000 {
        table.insert_mut(format!("host-{key}.test").into(), Arc::default());
    }
    let before = table.clone();
    table.insert_mut("new.test".into(), Arc::default());
    assert!(table.remove_mut("host-7.test"));
    let copied = before.values().filter(|value| Arc::strong_count(value) > 1);
    assert!((1..1_000).contains(&copied.count()));
    assert!(table.shards.len() < 1_000);
}

/// All of these have the same hash.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Same(u8);

impl Hash for Same {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

#[test]
fn config_pf14_keys_of_one_hash_are_told_apart() {
    let mut table = Table::default();
    for key in 0..100 {
        table.insert_mut(Same(key), key);
    }
    assert!(table.remove_mut(&Same(7)) && !table.remove_mut(&Same(7)));
    for key in 0..110 {
        let expected = (key < 100 && key != 7).then_some(key);
        assert_eq!(table.get(&Same(key)).copied(), expected);
    }
}
