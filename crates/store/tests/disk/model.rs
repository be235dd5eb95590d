//! Anything in any order, compared with a map.

use proptest::prelude::*;

use crate::layer::Memory;
use crate::{Model, open, options, put, version};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Remove(u8),
    Read(u8),
    Flush(bool),
    Reopen,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![Just(0_usize), 1_usize..5000, 60_000_usize..140_000];
    prop_oneof![
        6 => (0_u8..12, len).prop_map(|(key, len)| Step::Put(key, len)),
        2 => (0_u8..12).prop_map(Step::Remove),
        3 => (0_u8..12).prop_map(Step::Read),
        2 => any::<bool>().prop_map(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// With room for all, so that nothing goes by itself.
    #[test]
    fn it_is_a_map(steps in prop::collection::vec(step(), 1..60)) {
        let mut options = options();
        options.size_bytes = 64 * crate::SEGMENT;
        let mut layer = Memory::default();
        let (mut disk, _) = open(&layer, &options);
        let mut model = Model::new();
        for (at, step) in steps.into_iter().enumerate() {
            let at = at as u64;
            match step {
                Step::Put(key, len) => {
                    let key = format!("k{key}");
                    prop_assert!(put(&disk, &key, 0, at, len, 0));
                    model.insert(key, at);
                }
                Step::Remove(key) => {
                    let key = format!("k{key}");
                    disk.remove(crate::hash(&key));
                    model.remove(&key);
                }
                Step::Read(key) => {
                    let key = format!("k{key}");
                    disk.flush(false);
                    prop_assert_eq!(version(&disk, &key), model.get(&key).copied());
                }
                Step::Flush(save) => disk.flush(save),
                Step::Reopen => {
                    disk.close();
                    drop(disk);
                    disk = open(&layer, &options).0;
                }
                Step::Kill => {
                    disk.flush(false);
                    layer = layer.killed();
                    disk = open(&layer, &options).0;
                }
            }
        }
        disk.flush(false);
        for key in 0..12 {
            let key = format!("k{key}");
            prop_assert_eq!(version(&disk, &key), model.get(&key).copied());
        }
    }
}
