//! What a mistake looks like. Without features, since the compiler says the same with them and builds far less.

#[test]
fn mistakes_are_explained_by_the_compiler() {
    let cases = trybuild::TestCases::new();
    // A case that passes makes trybuild build and not only check: the keys of routes are checked while code is made.
    cases.pass("tests/compile_fail/fits.rs");
    cases.compile_fail("tests/compile_fail/*_*.rs");
}
