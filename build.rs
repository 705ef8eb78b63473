//! Compiles the C++ shim against the libtorch that tch links, and tells the binary where it lies.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "torch")]
    torch::build();
}

#[cfg(feature = "torch")]
mod torch {
    use std::path::PathBuf;

    pub(super) fn build() {
        println!("cargo:rerun-if-env-changed=LIBTORCH");
        println!("cargo:rerun-if-changed=src/native/shim.cpp");
        println!("cargo:rerun-if-changed=src/native/kernels.h");
        println!("cargo:rerun-if-changed=src/native/noise.h");
        println!("cargo:rerun-if-changed=src/native/neighbours.h");
        println!("cargo:rerun-if-changed=src/native/kernel_table.h");
        println!("cargo:rerun-if-changed=src/native/plain_kernels.h");
        println!("cargo:rerun-if-changed=src/native/device_kernels.h");
        println!("cargo:rerun-if-changed=src/native/device_table.h");
        println!("cargo:rerun-if-changed=src/native/device_twin.h");
        let root = std::env::var_os("LIBTORCH").map(PathBuf::from).unwrap_or_default();
        assert!(
            root.join("include/ATen/ATen.h").exists(),
            "no libtorch at `{}`\n\nhint: run ./launch/setup, or set LIBTORCH to its folder",
            root.display()
        );
        let library = root.join("lib");
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .opt_level(3)
            // The wheel ships GNU OpenMP beside libtorch; at::parallel_for expands to it.
            .flag("-fopenmp")
            .define("AT_PARALLEL_OPENMP", "1")
            .warnings(false)
            .include(root.join("include"))
            .include(root.join("include/torch/csrc/api/include"))
            .file("src/native/shim.cpp")
            .compile("scrimp_shim");
        println!("cargo:rustc-link-search=native={}", library.display());
        println!("cargo:rustc-link-lib=torch_cpu");
        println!("cargo:rustc-link-lib=c10");
        println!("cargo:rustc-link-lib=gomp");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", library.display());
        // RUNPATH, not RPATH: LD_LIBRARY_PATH of another machine may override it.
        println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags");
    }
}
