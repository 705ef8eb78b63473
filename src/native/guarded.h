// How errors leave the C ABI: as text, and never as an exception. Knows no functions of it.

#pragma once

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>

namespace scrimp {

// Runs `body`: nullptr, or an error text from strdup that the caller frees.
template <typename Body>
char* guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

}  // namespace scrimp
