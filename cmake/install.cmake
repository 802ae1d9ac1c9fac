# Headers, both libraries, gort.pc and the CMake package. The installed tree may be moved: no file
# in it holds a path.
include(CMakePackageConfigHelpers)

install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(TARGETS gort_static gort_shared gort_checkpoints EXPORT gortTargets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/gort)
install(EXPORT gortTargets NAMESPACE gort:: DESTINATION ${package_dir})
configure_package_config_file(cmake/gortConfig.cmake.in gortConfig.cmake
    INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(gortConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gortConfig.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/gortConfigVersion.cmake DESTINATION ${package_dir})

# From lib/[triplet/]pkgconfig back to the prefix.
file(RELATIVE_PATH up /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" gort_pc_prefix "\${pcfiledir}/${up}")
configure_file(cmake/gort.pc.in gort.pc @ONLY)
configure_file(cmake/gort-checkpoints.pc.in gort-checkpoints.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gort.pc ${CMAKE_CURRENT_BINARY_DIR}/gort-checkpoints.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
