# SPDX-License-Identifier: Apache-2.0
# cmake -DCMAKE_TOOLCHAIN_FILE=/tools/cross/toolchain.cmake: build for the guest.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_SYSROOT /sysroot)
set(CMAKE_C_COMPILER x86_64-nabla-linux-musl-gcc)
set(CMAKE_CXX_COMPILER x86_64-nabla-linux-musl-g++)
set(CMAKE_AR /tools/cross/bin/x86_64-nabla-linux-musl-ar CACHE FILEPATH "")
set(CMAKE_RANLIB /tools/cross/bin/x86_64-nabla-linux-musl-ranlib CACHE FILEPATH "")
set(CMAKE_STRIP /tools/cross/bin/x86_64-nabla-linux-musl-strip CACHE FILEPATH "")
set(PKG_CONFIG_EXECUTABLE /tools/cross/bin/x86_64-nabla-linux-musl-pkg-config CACHE FILEPATH "")
# Programs that run during the build come from the build root, everything else from the sysroot alone.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_SKIP_RPATH ON)
