//! What a mistake looks like. Without features, since the compiler says the same with them and builds far less.

#[test]
fn misuse_fails_to_compile_with_clear_errors() {
    let cases = trybuild::TestCases::new();
    // A case that passes makes trybuild build and not only check: the keys of routes are checked while code is made.
    cases.pass("tests/compile_fail/fits.rs");
    cases.compile_fail("tests/compile_fail/*_*.rs");
}
