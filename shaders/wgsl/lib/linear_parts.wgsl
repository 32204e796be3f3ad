#import ${PART} N=0 FORMAT=${FORMAT0} KIND=${KIND0}
#if FORMAT1
#import ${PART} N=1 FORMAT=${FORMAT1} KIND=${KIND1}
#endif
#if FORMAT2
#import ${PART} N=2 FORMAT=${FORMAT2} KIND=${KIND2}
#endif
#if FORMAT3
#import ${PART} N=3 FORMAT=${FORMAT3} KIND=${KIND3}
#endif
// Template of the kernels of the linear op: sums_0 .. 3 from the template PART.
