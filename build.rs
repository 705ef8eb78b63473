//! Compiles the C++ shim against the libtorch that tch links, and tells the binary where it lies.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "torch")]
    torch::build();
}

#[cfg(feature = "torch")]
mod torch {
    use std::path::{Path, PathBuf};

    pub(super) fn build() {
        println!("cargo:rerun-if-env-changed=LIBTORCH");
        println!("cargo:rerun-if-env-changed=CUDA_HOME");
        sources("src/native").into_iter().chain(sources("tests/it")).for_each(|source| {
            println!("cargo:rerun-if-changed={}", source.display());
        });
        let root = std::env::var_os("LIBTORCH").map(PathBuf::from).unwrap_or_default();
        assert!(
            root.join("include/ATen/ATen.h").exists(),
            "no libtorch at `{}`\n\nhint: run ./launch/setup, or set LIBTORCH to its folder",
            root.display()
        );
        let library = root.join("lib");
        compiler(&root)
            // The wheel ships GNU OpenMP beside libtorch; at::parallel_for expands to it.
            .flag("-fopenmp")
            .define("AT_PARALLEL_OPENMP", "1")
            .file("src/native/shim.cpp")
            .file("src/native/convolution.cpp")
            .file("src/native/discriminator.cpp")
            .file("src/native/kernel_launcher.cpp")
            .file("src/native/propagation.cpp")
            .compile("scrimp_shim");
        link_to_tests(&root, "tests/it/gpu_first.cpp");
        compiler(&root)
            .flag("-fopenmp")
            .define("AT_PARALLEL_OPENMP", "1")
            // Weights are rounded alike on every machine, and roots are vectorised.
            .flag("-ffp-contract=off")
            .flag("-fno-math-errno")
            .file("src/native/shim_flat.cpp")
            .compile("scrimp_shim_flat");
        let cuda = build_cuda(&root).unwrap_or_default();
        println!("cargo:rustc-env=SCRIMP_CUDA_LIBRARY={}", cuda.display());
        println!("cargo:rustc-link-search=native={}", library.display());
        println!("cargo:rustc-link-lib=torch_cpu");
        println!("cargo:rustc-link-lib=c10");
        println!("cargo:rustc-link-lib=gomp");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", library.display());
        // Where the compiler of kernels is, in the wheels.
        let wheels = root.join("../nvidia/cu13/lib");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", wheels.display());
        // RUNPATH, not RPATH: LD_LIBRARY_PATH of another machine may override it.
        println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags");
    }

    /// Compiles a source for the tests, where these are there: an object and no library, from which the linker would
    /// take nothing.
    fn link_to_tests(root: &Path, source: &str) {
        if !Path::new(source).exists() {
            return;
        }
        for object in compiler(root).file(source).compile_intermediates() {
            println!("cargo:rustc-link-arg-tests={}", object.display());
        }
    }

    /// What the host's compiler reads of a folder.
    fn sources(folder: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let is_source =
            |path: &PathBuf| path.extension().is_some_and(|of| of == "h" || of == "cpp");
        entries.map(|entry| entry.path()).filter(is_source).collect()
    }

    fn compiler(root: &Path) -> cc::Build {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").opt_level(3).warnings(false);
        build.include(root.join("include")).include(root.join("include/torch/csrc/api/include"));
        build
    }

    /// Compiles the CUDA half into a library of its own, which is linked to nothing: the program loads it
    /// after libtorch's, where there is a GPU. None where libtorch or CUDA's headers are missing for it.
    fn build_cuda(root: &Path) -> Option<PathBuf> {
        let home = std::env::var_os("CUDA_HOME").map_or("/usr/local/cuda".into(), PathBuf::from);
        let headers = [root.join("../nvidia/cu13/include"), home.join("include")];
        let headers = headers.iter().find(|headers| headers.join("crt/host_defines.h").exists());
        let (Some(headers), true) = (headers, root.join("include/ATen/cuda/CUDAGraph.h").exists())
        else {
            println!(
                "cargo:warning=built without GPUs: no headers of CUDA beside libtorch or in CUDA_HOME"
            );
            return None;
        };
        let target = PathBuf::from(std::env::var_os("OUT_DIR")?).join("libscrimp_cuda.so");
        let compiler = compiler(root).include(headers).get_compiler();
        let status = compiler
            .to_command()
            .args(["-shared", "-fPIC", "-w"])
            .args(["src/native/shim_cuda.cpp", "src/native/cuda_kernels.cpp", "-o"])
            .arg(&target)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "cannot compile what needs CUDA");
        // Beside the program too, so that both can be moved together.
        let beside = target.ancestors().nth(4)?.join("libscrimp_cuda.so");
        let _ = std::fs::copy(&target, beside);
        Some(target)
    }
}
